// The list of messages: keys, undo, and rows that follow what happens. Without it everything is a link or a form.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const says = (text) => { $("says").textContent = text; };
  const rows = () => [...document.querySelectorAll(".mails tbody tr")];
  const boxes = () => [...document.querySelectorAll(".pick input")];
  const chosen = () => boxes().filter((each) => each.checked);
  const here = () => {
    const row = document.activeElement && document.activeElement.closest(".mails tbody tr");
    return row || document.querySelector(".mails tr.at");
  };

  // -- which row one is at ------------------------------------------------------------------------------------
  const goTo = (row) => {
    if (!row) return;
    for (const each of document.querySelectorAll(".mails tr.at")) each.classList.remove("at");
    row.classList.add("at");
    row.querySelector(".open").focus();
  };
  const step = (by) => {
    const all = rows();
    const now = all.indexOf(here());
    goTo(all[now < 0 ? (by > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, now + by))]);
  };
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest && event.target.closest(".mails tbody tr");
    if (!row) return;
    for (const each of document.querySelectorAll(".mails tr.at")) if (each !== row) each.classList.remove("at");
    row.classList.add("at");
  });

  // -- the list, loaded anew ----------------------------------------------------------------------------------
  let asOf = $("list").dataset.asOf;
  let mark = $("news").dataset.mark;
  let loading = null;
  const put = (page) => {
    const row = here();
    const focused = row && row.contains(document.activeElement);
    const place = row ? rows().indexOf(row) : -1;
    const kept = new Set(chosen().map((each) => each.value));
    const active = document.activeElement;
    for (const id of ["list", "tabs"]) {
      const fresh = page.getElementById(id);
      if (!fresh) continue;
      // What somebody may be about to use stays: a menu that he has opened, a time that he has typed.
      for (const part of [".tools", ".all"]) {
        const [mine, other] = [$(id).querySelector(part), fresh.querySelector(part)];
        if (mine && other) other.replaceWith(mine);
      }
      $(id).replaceWith(document.adoptNode(fresh));
    }
    if (active && active !== document.activeElement && active.isConnected) active.focus();
    for (const each of boxes()) each.checked = kept.has(each.value);
    ready();
    if (!row) return;
    const again = $(row.id) || rows()[Math.min(place, rows().length - 1)];
    if (again && focused) goTo(again);
    else if (again) again.classList.add("at");
  };
  const load = (fresh) => {
    const url = new URL(location.href);
    for (const name of ["done", "n", "undo", "as_of"]) url.searchParams.delete(name);
    if (!fresh) url.searchParams.set("as_of", asOf);
    const mine = (loading = fetch(url, { headers: { Accept: "text/html" }, credentials: "same-origin" })
      .then((answer) => (answer.ok ? answer.text() : Promise.reject(answer.status)))
      .then((text) => {
        if (loading !== mine) return; // a later one is under way
        put(new DOMParser().parseFromString(text, "text/html"));
        if (fresh) asOf = $("list").dataset.asOf;
        else $("list").dataset.asOf = asOf;
        count();
      })
      .catch(() => {})); // the hub is away: what was shown stays, and the stream comes back
    return mine;
  };

  // -- live ---------------------------------------------------------------------------------------------------
  let live = true;
  const fresh = () => $("news").dataset.rows.split(" ").filter((pos) => pos && BigInt(pos) > BigInt(asOf)).length;
  const count = () => {
    const many = fresh();
    $("new").hidden = !many;
    if (!many) return;
    const text = (many >= 20 ? "20+" : many) + " new – show";
    if ($("show-new").textContent !== text) {
      $("show-new").textContent = text;
      says((many >= 20 ? "20 or more" : many) + " new");
    }
  };
  const atTop = () => {
    const list = $("list").dataset;
    const field = document.activeElement && document.activeElement.matches("#acts input:not([type=checkbox]), #acts select");
    return window.scrollY < 80 && !list.searched && !list.after && !chosen().length && !field;
  };
  document.addEventListener("htmx:sse:after:message", () => {
    const news = $("news").dataset.mark;
    if (!live || news === mark) return;
    mark = news;
    load(atTop());
  });
  let heard = new Date();
  document.addEventListener("htmx:sse:after:message", () => {
    heard = new Date();
    $("age").textContent = "";
  });
  document.addEventListener("htmx:sse:error", () => {
    if (!$("age").textContent) $("age").textContent = "as of " + heard.toLocaleTimeString("en-GB", { timeZone: holdfast.zone, timeZoneName: "short" }) + ": the hub does not answer";
  });
  const toggle = $("live-toggle");
  toggle.hidden = false;
  const setLive = (now) => {
    live = now;
    toggle.textContent = live ? "Live" : "Paused";
    toggle.setAttribute("aria-pressed", String(live));
    says(live ? "The list is live" : "The list is paused");
    if (live && $("news").dataset.mark !== mark) {
      mark = $("news").dataset.mark;
      load(atTop());
    }
  };
  toggle.textContent = "Live";
  toggle.addEventListener("click", () => setLive(!live));
  const showNew = () => {
    const url = new URL(location.href);
    if (url.searchParams.has("after")) {
      url.searchParams.delete("after");
      location.assign(url);
      return;
    }
    load(true).then(() => { window.scrollTo(0, 0); goTo(rows()[0]); });
  };
  $("show-new").addEventListener("click", showNew);

  // -- doing, and taking it back ------------------------------------------------------------------------------
  const toast = holdfast.toast;
  const send = (form, submitter) => {
    const body = new URLSearchParams(new FormData(form, submitter));
    const token = body.get("form_token");
    return fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" }, credentials: "same-origin" })
      .then((answer) => answer.json().then((found) => [answer.ok, found]))
      .then(([ok, found]) => {
        if (!ok) {
          toast(found.error.message + (found.error.hint ? ": " + found.error.hint : ""));
          return null;
        }
        for (const each of boxes()) each.checked = false;
        holdfast.badge(found.unread);
        toast(found.says, found.undo, token);
        return load(false);
      })
      .catch(() => toast("The hub does not answer: nothing was done."));
  };
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    const form = event.target;
    if (!button || !form.matches("#acts, #toast form") || button.name === "all") return;
    if (button.value === "reply" || button.value === "execute") return; // these lead to the message
    event.preventDefault();
    send(form, button);
  });
  const act = (what) => {
    const form = $("acts");
    const button = form && form.querySelector("button[value=" + what + "]");
    if (!button) return;
    const row = here();
    const single = !chosen().length && row && row.querySelector(".pick input");
    if (single) single.checked = true;
    if (!chosen().length) return;
    if (what === "reply" || what === "execute") form.requestSubmit(button);
    else send(form, button);
  };

  // -- choosing -----------------------------------------------------------------------------------------------
  let last = null;
  const choose = (range) => {
    const row = here();
    const box = row && row.querySelector(".pick input");
    if (!box) return;
    const all = boxes();
    const from = last ? all.findIndex((each) => each.value === last) : -1;
    if (range && from >= 0) {
      const to = all.indexOf(box);
      for (const each of all.slice(Math.min(from, to), Math.max(from, to) + 1)) each.checked = true;
    } else box.checked = !box.checked;
    last = box.value;
    says(chosen().length + " chosen");
  };
  document.addEventListener("click", (event) => {
    if (!event.target.matches || !event.target.matches(".pick input")) return;
    if (event.shiftKey && last) {
      const all = boxes();
      const [a, b] = [all.findIndex((each) => each.value === last), all.indexOf(event.target)];
      if (a >= 0) for (const each of all.slice(Math.min(a, b), Math.max(a, b) + 1)) each.checked = event.target.checked;
    }
    last = event.target.value;
  });

  const copy = () => {
    const one = chosen()[0];
    const row = one ? one.closest("tr") : here();
    if (!row) return;
    const text = row.querySelector(".open").href;
    const old = () => { // an address in the local network is no secure origin: there is no other clipboard
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).catch(old);
    else old();
    toast("Copied.");
  };
  const ready = () => {
    const button = $("copy");
    if (!button) return;
    button.hidden = false;
    button.onclick = copy;
  };
  ready();

  // -- keys ---------------------------------------------------------------------------------------------------
  holdfast.keys({
    j: () => step(1),
    k: () => step(-1),
    o: () => { const row = here(); if (row) row.querySelector(".open").click(); },
    x: () => choose(false),
    X: () => choose(true),
    e: () => act("acknowledge"),
    E: () => act("execute"),
    "#": () => act("archive"),
    r: () => act("reply"),
    U: () => act("unread"),
    h: () => {
      const menu = $("snooze");
      if (!menu) return;
      const row = here();
      if (!chosen().length && row) row.querySelector(".pick input").checked = true;
      menu.open = true;
      menu.querySelector("select").focus();
    },
    z: () => { const form = document.querySelector("#toast form"); if (form) send(form, form.querySelector("button")); },
    l: () => setLive(!live),
    "[": () => { if ($("list").dataset.after) history.back(); },
    "]": () => { const next = document.querySelector("#list a[rel=next]"); if (next) next.click(); },
    "?": () => { $("keys").open = true; $("keys").querySelector("summary").focus(); },
    u: () => history.back(),
    Escape: () => {
      if (chosen().length) for (const each of boxes()) each.checked = false;
      else if (document.activeElement) document.activeElement.blur();
    },
  });
})();
