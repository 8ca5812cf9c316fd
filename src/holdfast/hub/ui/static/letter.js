// Only comfort: keys for what the buttons of a message's page do.
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
  const does = {
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
  };
  let went = 0;
  document.addEventListener("keydown", (event) => {
    if (document.documentElement.dataset.keys === "off" || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("textarea, select, input");
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing) return;
    if (event.key === "g") { went = Date.now(); return; }
    if (Date.now() - went < 1000) { went = 0; return; } // the second of two keys that lead to a page
    const work = does[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  });

  // The list leads here to reply or to execute. A browser that has gone to a place in a page takes the focus away, so this
  // comes behind it.
  const where = { "#reply": "r", "#execute": "E" }[location.hash];
  if (where) addEventListener("load", () => setTimeout(() => go(where)));

  // What an address says was done is told once.
  const told = new URL(location.href);
  if (told.searchParams.has("done")) {
    for (const name of ["done", "n", "undo"]) told.searchParams.delete(name);
    history.replaceState(null, "", told);
    setTimeout(() => first("#toast").replaceChildren(), 10000);
  }
})();
