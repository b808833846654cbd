// Sorting and searching of tables, and saving of figures. The page is complete without any of it.
"use strict";
(() => {
  const key = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.sort;
    return number === undefined ? cell.textContent : Number(number);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table");
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.textContent = head.textContent || "sort";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => compare(key(a, column), key(b, column)));
        if (down) rows.reverse();
        body.append(...rows);
      });
    });
    if (body.rows.length > 6) {
      const search = document.createElement("input");
      search.type = "search";
      search.placeholder = "search rows";
      search.setAttribute("aria-label", "search rows of this table");
      search.addEventListener("input", () => {
        const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        for (const row of body.rows) {
          const text = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word));
        }
      });
      box.querySelector(".bar").append(search);
    }
  }
  const rules = document.querySelector("style").textContent;
  const style = rules.slice(rules.indexOf("svg.figure"));
  for (const figure of document.querySelectorAll("figure")) {
    const drawing = figure.querySelector("svg");
    if (!drawing) continue;
    const button = document.createElement("button");
    button.className = "save";
    button.textContent = "SVG";
    button.addEventListener("click", () => {
      const copy = drawing.cloneNode(true);
      const own = document.createElementNS("http://www.w3.org/2000/svg", "style");
      own.textContent = style;
      copy.prepend(own);
      const text = new XMLSerializer().serializeToString(copy);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      link.download = figure.id + ".svg";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    figure.querySelector(".bar").append(button);
  }
})();
