// Only comfort: keys for what the buttons of a message's page do; and a message that is opened is marked read.
"use strict";
(() => {
  const first = (what) => document.querySelector(what);
  const press = (key) => {
    const button = first('[data-key="' + CSS.escape(key) + '"]');
    if (!button || button.offsetParent === null) return;
    if (button.matches("summary")) {
      button.parentElement.open = true;
      button.parentElement.querySelector("select").focus();
    } else button.click();
  };
  const go = (to) => {
    const place = first('[data-focus="' + to + '"]');
    if (!place) return;
    if (place.matches("summary")) {
      place.parentElement.open = true;
      place.parentElement.querySelector("input:not([type=hidden])").focus();
    } else {
      place.scrollIntoView({ block: "center" });
      place.focus();
    }
  };
  const follow = (what) => {
    const link = first(what);
    if (link) link.click();
  };
  holdfast.keys({
    e: () => press("e"),
    "#": () => press("#"),
    h: () => press("h"),
    U: () => press("U"),
    z: () => press("z"),
    E: () => go("E"),
    r: () => go("r"),
    "[": () => follow(".letters a[rel=prev]"),
    "]": () => follow(".letters a[rel=next]"),
    u: () => follow("#list-back"),
    Escape: () => follow("#list-back"),
    "?": () => { first("#keys").open = true; first("#keys summary").focus(); },
  });

  // The list leads here to reply or to execute. A browser that has gone to a place in a page takes the focus away, so this
  // comes behind it.
  const where = { "#reply": "r", "#execute": "E" }[location.hash];
  if (where) addEventListener("load", () => setTimeout(() => go(where)));

  // Whoever opens an unread message has read it: once it is seen, and not when he comes back to it or loads it again, as he
  // may have marked it unread since. To ask for the page alone (a look ahead, a HEAD) changes nothing.
  const form = first("#says-form[data-unread]");
  const read = () => {
    if (document.hidden) return;
    document.removeEventListener("visibilitychange", read);
    const body = new URLSearchParams(new FormData(form));
    body.set("what", "read");
    fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" }, credentials: "same-origin", keepalive: true })
      .then((answer) => (answer.ok ? answer.json() : Promise.reject(answer.status)))
      .then((found) => {
        holdfast.badge(found.unread);
        holdfast.toast("Marked as read.", found.undo, body.get("form_token"));
      })
      .catch(() => {}); // it stays unread, and says so
  };
  const came = performance.getEntriesByType("navigation")[0];
  if (form && !holdfast.told && (!came || came.type === "navigate")) {
    document.addEventListener("visibilitychange", read);
    read();
  }
})();
