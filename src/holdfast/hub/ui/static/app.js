// Only comfort: every page works without it. Ages are told anew as time goes by, and keys lead from page to page.
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

  const pages = {
    o: "/", m: "/messages", n: "/nodes", a: "/agents", d: "/data", f: "/artifacts", s: "/sessions", i: "/integrity", b: "/backups",
    u: "/audit", c: "/charts", t: "/settings",
  };
  let went = 0;
  document.addEventListener("keydown", (event) => {
    if (document.documentElement.dataset.keys === "off") return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "g") {
      went = Date.now();
    } else if (Date.now() - went < 1000 && pages[event.key]) {
      went = 0;
      location.assign(pages[event.key]);
    } else if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    }
  });
})();
