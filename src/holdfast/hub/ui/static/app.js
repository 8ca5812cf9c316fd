// Only comfort: every page works without it. Ages are told anew as time goes by, keys lead from page to page, what was done is told.
"use strict";
(() => {
  const spans = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const said = (seconds) => {
    if (seconds < 2) return "just now";
    let left = Math.floor(seconds < 60 ? seconds : seconds - (seconds % 60));
    const out = [];
    for (const [size, unit] of spans) {
      if (left >= size) {
        out.push(Math.floor(left / size) + " " + unit);
        left %= size;
      } else if (out.length) break;
    }
    return out.slice(0, 2).join(" ") + " ago";
  };
  const tick = () => {
    for (const each of document.querySelectorAll("time[datetime]")) {
      const at = Date.parse(each.dateTime);
      if (!Number.isNaN(at)) each.textContent = said((Date.now() - at) / 1000);
    }
  };
  setInterval(tick, 10000);

  // A stream that broke is taken up again by htmx; one whose first request failed is not.
  setInterval(() => {
    const stream = document.querySelector("[hx-sse\\:connect]");
    if (!stream || document.hidden || !window.htmx || !stream._htmx || stream._htmx.sse) return;
    htmx.ajax("GET", stream.getAttribute("hx-sse:connect"), { source: stream, swap: "none" });
  }, 10000);

  const title = () => {
    const badge = document.getElementById(document.documentElement.dataset.counts);
    const number = badge && !badge.hidden ? "(" + badge.childNodes[1].textContent.trim() + ") " : "";
    document.title = number + document.title.replace(/^\(\d+\+?\) /, "");
  };
  document.addEventListener("htmx:sse:after:message", title);

  // What the scripts of single pages use, too.
  const page = (window.holdfast = {});

  page.badge = (unread) => {
    const badge = document.getElementById("mail-badge");
    if (!badge) return;
    badge.hidden = !unread;
    badge.querySelector(".figure").textContent = unread > 999 ? "999+" : unread;
    title();
  };

  // What was done is told for ten seconds, with a form that takes it back.
  let timer = 0;
  page.toast = (text, undo, token) => {
    const box = document.getElementById("toast");
    box.replaceChildren();
    clearTimeout(timer);
    if (!text) return;
    const p = document.createElement("p");
    p.textContent = text;
    box.append(p);
    if (undo) {
      const form = document.createElement("form");
      form.method = "post";
      form.action = "/messages/act";
      const back = new URL(location.href);
      const fields = { form_token: token, for: back.searchParams.get("to") || "", back: back.pathname + back.search, undo };
      for (const [name, value] of Object.entries(fields)) {
        const field = document.createElement("input");
        field.type = "hidden";
        field.name = name;
        field.value = value;
        form.append(field);
      }
      const button = document.createElement("button");
      button.name = "what";
      button.value = "undo";
      button.dataset.key = "z";
      button.textContent = "Undo";
      const key = document.createElement("kbd");
      key.textContent = "z";
      form.append(button, " ", key);
      box.append(form);
    }
    timer = setTimeout(() => page.toast(""), 10000);
  };

  // What an address says was done is told once.
  const told = new URL(location.href);
  page.told = told.searchParams.has("done");
  if (page.told && document.getElementById("toast")) {
    for (const name of ["done", "n", "undo"]) told.searchParams.delete(name);
    history.replaceState(null, "", told);
    timer = setTimeout(() => page.toast(""), 10000);
  }

  // A form that chooses how times are said needs to know where the browser is.
  for (const each of document.querySelectorAll("[data-zone-here]")) {
    if (!each.value) each.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  }
  page.zone = document.documentElement.dataset.zone;

  const pages = {
    o: "/", m: "/messages", n: "/nodes", a: "/agents", d: "/data", f: "/artifacts", s: "/sessions", i: "/integrity", b: "/backups",
    u: "/audit", c: "/charts", t: "/settings",
  };
  let does = {
    "/": () => {
      const search = document.querySelector("input[type=search]");
      if (!search) return false;
      search.focus();
    },
  };
  page.keys = (more) => { does = { ...does, ...more }; };
  let went = 0;
  document.addEventListener("keydown", (event) => {
    if (document.documentElement.dataset.keys === "off" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("textarea, select, input:not([type=checkbox])")) {
      if (event.key === "Escape" && does.Escape) event.target.blur();
      return;
    }
    if (event.key === "g") { went = Date.now(); return; }
    if (Date.now() - went < 1000) { // the second of two keys that lead to a page
      went = 0;
      if (pages[event.key]) location.assign(pages[event.key]);
      return;
    }
    const work = does[event.key];
    if (work && work() !== false) event.preventDefault();
  });
})();
