"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const typing = () => ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement.tagName);

  // Findings: shown by state and check, in three orders, walked through with j and k.
  const articles = all(".finding"), list = one("#list"), state = one("#state"), check = one("#check"), order = one("#order");
  const arrange = () => {
    const by = {
      rank: (a, b) => a.dataset.rank - b.dataset.rank,
      images: (a, b) => b.dataset.images - a.dataset.images,
      check: (a, b) => a.dataset.check.localeCompare(b.dataset.check) || a.dataset.rank - b.dataset.rank,
    }[order.value];
    for (const article of [...articles].sort(by)) {
      const data = article.dataset;
      article.hidden = (state.value && data.state !== state.value) || (check.value && data.check !== check.value);
      list.append(article);
    }
  };
  if (order) for (const tool of [state, check, order]) tool.addEventListener("change", arrange);
  const walk = (step) => {
    const shown = all(".finding:not([hidden])", list);
    const at = shown.indexOf(document.activeElement.closest(".finding"));
    const next = shown[Math.min(Math.max(at + step, 0), shown.length - 1)];
    if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "start" }); }
  };

  // Groups: of one class or all, in three orders.
  const groups = all(".group"), gathered = one("#groups"), groupClass = one("#group-class"), groupOrder = one("#group-order");
  const gather = () => {
    const by = {
      rank: (a, b) => a.dataset.rank - b.dataset.rank,
      images: (a, b) => b.dataset.images - a.dataset.images,
      class: (a, b) => a.dataset.class.localeCompare(b.dataset.class) || a.dataset.rank - b.dataset.rank,
    }[groupOrder.value];
    for (const group of [...groups].sort(by)) {
      group.hidden = groupClass.value && group.dataset.class !== groupClass.value;
      gathered.append(group);
    }
  };
  if (gathered) for (const tool of [groupClass, groupOrder]) tool.addEventListener("change", gather);

  // Maps or photographs.
  const swap = one("#swap");
  const exchange = () => {
    const photos = document.body.classList.toggle("photos");
    if (swap) swap.setAttribute("aria-pressed", String(photos));
  };
  if (swap) swap.addEventListener("click", exchange);

  // A picture, enlarged: the map beside the photograph.
  const large = one("#large"), [heat, photo] = all(".pic", large);
  let tile = null;
  const show = (chosen) => {
    tile = chosen;
    const place = ` g${tile.dataset.g} p${tile.dataset.p}`;
    heat.className = `pic map${place}`;
    photo.className = `pic photo${place}`;
    one(".what", large).textContent = `${one(".more", tile).textContent}: ${one(".name", tile).textContent}`;
    if (!large.open) large.showModal();
  };
  const step = (by) => {
    const tiles = all(".tile", tile.closest(".tiles"));
    show(tiles[(tiles.indexOf(tile) + by + tiles.length) % tiles.length]);
  };
  document.addEventListener("click", (event) => {
    const chosen = event.target.closest(".tile");
    if (chosen) show(chosen);
    else if (event.target.closest("[data-step]")) step(Number(event.target.closest("[data-step]").dataset.step));
    else if (event.target === large || event.target.closest("[data-close]")) large.close();
  });
  large.addEventListener("close", () => tile && tile.focus());

  // Small tables sort by a click on their heads.
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        all("th", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => value(a).localeCompare(value(b), undefined, { numeric: true }));
        table.tBodies[0].append(...(down ? rows.reverse() : rows));
      });
    });
  }

  // All images: columns in chunks, of which a hundred rows are in the page at a time.
  const classes = JSON.parse(one("#classes").textContent), PAGE = 100;
  const rows = { at: [], uri: [], status: [], error: [], label: [], index: [], prediction: [], sure: [], own: [], found: [] };
  for (const chunk of all(".chunk")) {
    const part = JSON.parse(chunk.textContent);
    for (const key of Object.keys(rows)) {
      if (key === "at") for (let n = 0; n < part.uri.length; n++) rows.at.push(part.at + n);
      else for (const value of part[key]) rows[key].push(value);
    }
    chunk.remove();
  }
  const named = (index) => (index === null ? "" : classes[index] ?? `class ${index}`);
  const wrong = (n) => rows.index[n] !== null && rows.prediction[n] !== null && rows.index[n] !== rows.prediction[n];
  const body = one("#rows tbody"), query = one("#query"), kind = one("#kind"), count = one("#count");
  let chosen = [], page = 0, key = "at", falling = false;
  const kinds = { wrong, found: (n) => rows.found[n] !== 0, failed: (n) => rows.status[n] !== null };
  const choose = () => {
    const text = query.value.trim().toLowerCase(), fits = kinds[kind.value] || (() => true);
    const says = (n) => `${rows.uri[n]} ${rows.label[n] ?? ""} ${named(rows.prediction[n])}`.toLowerCase().includes(text);
    chosen = [];
    for (let n = 0; n < rows.at.length; n++) if (fits(n) && (!text || says(n))) chosen.push(n);
    const values = rows[key], sign = falling ? -1 : 1;
    const worth = key === "prediction" ? (n) => named(values[n]) : (n) => values[n];
    chosen.sort((a, b) => {
      const [x, y] = [worth(a), worth(b)];
      if (x === y) return a - b;
      if (x === null || y === null) return x === null ? 1 : -1;
      return x < y ? -sign : sign;
    });
    page = 0;
    fill();
  };
  const cell = (row, text, number) => {
    const made = row.insertCell();
    if (number) made.className = "n";
    made.textContent = text;
    return made;
  };
  const share = (value) => (value === null ? "" : `${(value / 10).toFixed(1)} %`);
  const fill = () => {
    const part = chosen.slice(page * PAGE, (page + 1) * PAGE), rowsOf = document.createDocumentFragment();
    for (const n of part) {
      const row = document.createElement("tr");
      if (wrong(n)) row.className = "wrong";
      cell(row, rows.uri[n]);
      cell(row, rows.label[n] ?? "");
      cell(row, rows.status[n] === null ? named(rows.prediction[n]) : `${rows.status[n]}: ${rows.error[n] ?? ""}`);
      cell(row, share(rows.sure[n]), true);
      cell(row, share(rows.own[n]), true);
      const links = cell(row, "");
      for (const number of rows.found[n] || []) {
        const link = document.createElement("a");
        link.href = `#finding-${number}`;
        link.textContent = `${number + 1} `;
        links.append(link);
      }
      rowsOf.append(row);
    }
    body.replaceChildren(rowsOf);
    const first = chosen.length ? page * PAGE + 1 : 0;
    count.textContent = `${first.toLocaleString("en")} to ${(page * PAGE + part.length).toLocaleString("en")} of ${chosen.length.toLocaleString("en")}`;
    one("#back").disabled = page === 0;
    one("#next").disabled = (page + 1) * PAGE >= chosen.length;
  };
  all("#rows th[data-key]").forEach((head) => head.addEventListener("click", () => {
    falling = key === head.dataset.key ? !falling : false;
    key = head.dataset.key;
    all("#rows th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    choose();
  }));
  query.addEventListener("input", choose);
  kind.addEventListener("change", choose);
  one("#back").addEventListener("click", () => { page -= 1; fill(); });
  one("#next").addEventListener("click", () => { page += 1; fill(); });
  choose();

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (large.open) {
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
      return;
    }
    if (typing()) return;
    if (event.key === "j") walk(1);
    if (event.key === "k") walk(-1);
    if (event.key === "m") exchange();
    if (event.key === "/") { event.preventDefault(); query.focus(); }
  });
})();
