// Draws each chart from the table that stands below it, so that both say the same. Without this the tables are there.
"use strict";
(() => {
  const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4], [1, 5], [12, 6]];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const size = (bytes) => {
    let n = bytes, unit = 0;
    while (Math.abs(n) >= 1024 && unit < units.length - 1) {
      n /= 1024;
      unit += 1;
    }
    return (unit && n < 100 ? n.toFixed(1) : Math.round(n)) + " " + units[unit];
  };
  const two = (n) => String(n).padStart(2, "0");
  const zone = document.documentElement.dataset.zone;
  // A moment whose own hours and days are those of the chosen zone.
  const there = (at) => uPlot.tzDate(new Date(at * 1000), zone);
  const dateOf = (t) => two(t.getMonth() + 1) + "-" + two(t.getDate());
  const hourOf = (t) => two(t.getHours()) + ":" + two(t.getMinutes());
  // Hours of a day, and the date where one begins; of more than three days, the dates.
  const clock = (span) => (u, ticks) =>
    ticks.map((at) => {
      const t = there(at);
      if (span > 3 * 86400) return dateOf(t);
      return hourOf(t) === "00:00" ? dateOf(t) : hourOf(t);
    });
  const powers = Array.from({ length: 50 }, (_, n) => 2 ** n);
  // A custom property may say light-dark(…); what an element is given of it is a colour.
  const colour = (name) => {
    const probe = document.createElement("span");
    probe.style.color = "var(" + name + ")";
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const read = (section) => {
    const rows = [...section.querySelectorAll("tbody tr")];
    const names = [...section.querySelectorAll("thead th")].slice(1).map((each) => each.textContent);
    const since = Number(section.dataset.since), width = Number(section.dataset.width);
    const lines = names.map((_, n) =>
      rows.map((row) => {
        const cell = row.children[n + 1];
        const text = cell.dataset.v || cell.textContent.replaceAll(",", "");
        return text === "–" ? null : Number(text);
      })
    );
    return { names, data: [rows.map((_, n) => since + n * width), ...lines] };
  };
  const drawn = [];
  const draw = () => {
    for (const each of drawn.splice(0)) each.destroy();
    const ink = colour("--quiet"), grid = colour("--line");
    const inks = ["--accent", "--warn", "--good", "--bad", "--quiet", "--fg"].map(colour);
    for (const section of document.querySelectorAll("[data-chart]")) {
      const { names, data } = read(section);
      const bytes = section.dataset.unit === "bytes";
      const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui" };
      const say = (u, v) => (v === null || v === undefined ? "–" : bytes ? size(v) : v.toLocaleString("en"));
      let place = section.querySelector(".plot");
      if (!place) {
        place = document.createElement("div");
        place.className = "plot";
        place.setAttribute("aria-hidden", "true"); // its table says the same, to everybody
        section.querySelector("details").before(place);
      }
      const options = {
        width: place.clientWidth,
        height: 200,
        tzDate: there,
        scales: { y: { range: (u, least, most) => [0, most > 0 ? most * 1.1 : 1] } },
        axes: [
          { ...axis, values: clock(data[0][data[0].length - 1] - data[0][0]) },
          { ...axis, ...(bytes ? { incrs: powers } : {}), size: bytes ? 72 : 56, values: (u, ticks) => ticks.map((v) => (bytes ? size(v) : v.toLocaleString("en"))) },
        ],
        series: [
          { value: (u, v) => (v === null ? "–" : dateOf(there(v)) + " " + hourOf(there(v))) },
          ...names.map((label, n) => ({
            label,
            stroke: inks[n % inks.length],
            width: 2,
            dash: dashes[n % dashes.length],
            points: { show: data[0].length < 2 ? true : undefined },
            value: say,
          })),
        ],
      };
      drawn.push(new uPlot(options, data, place));
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let later = 0;
  addEventListener("resize", () => {
    clearTimeout(later);
    later = setTimeout(() => {
      for (const each of drawn) each.setSize({ width: each.root.parentElement.clientWidth, height: 200 });
    }, 100);
  });
})();
