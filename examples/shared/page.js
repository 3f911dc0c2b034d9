// What the pages do alike: making elements, and showing what becomes of the link.

/** The elements of the page that have an id, by that id in camel case. */
export const page = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((element) => [
    element.id.replace(/-(.)/g, (_, letter) => letter.toUpperCase()),
    element,
  ]),
);

/** Makes an element. Strings among the children become text, never markup. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function makeButton(className, label, action) {
  const button = make("button", className, label);
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}

/** Shows the state of a link in #state, #countdown, #retry and #stopped, and lets a person bring it back. */
export class Status {
  #link = null;

  /** Takes the link, and looks after it from now on. */
  watch(link) {
    this.#link = link;
    page.retry.addEventListener("click", () => link.retryNow());
    page.comeBack.addEventListener("click", () => link.retryNow());
    addEventListener("online", () => link.state === "offline" && link.retryNow());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && link.state === "offline") link.retryNow();
    });
    setInterval(() => this.#showCountdown(), 250);
  }

  show(state, close) {
    document.body.dataset.state = state;
    page.state.textContent = {
      connecting: "Connecting…",
      online: "Online",
      offline: "Offline",
      stopped: "Disconnected",
      closed: "Disconnected",
    }[state];
    page.retry.hidden = state !== "offline";
    page.stopped.hidden = state !== "stopped";
    if (state === "stopped") {
      page.stoppedReason.textContent = `${close.reason || "The server has ended the connection."} (${close.code})`;
    }
    this.#showCountdown();
  }

  #showCountdown() {
    const seconds = Math.max(0, Math.ceil((this.#link?.retryAt - Date.now()) / 1000));
    page.countdown.textContent = this.#link?.state === "offline" ? `trying again in ${seconds} s` : "";
  }
}
