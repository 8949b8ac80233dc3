/* The table of samples. Every text reaches the page as a text node, so what a model wrote stays text. */
(function () {
  "use strict";
  const source = document.getElementById("samples-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const column = Object.fromEntries(data.columns.map((name, i) => [name, i]));
  const body = document.getElementById("sample-rows");
  const field = (name) => document.querySelector(`[data-filter="${name}"]`);
  const all = (role) => document.querySelectorAll(`[data-role="${role}"]`);
  const perPage = 20;
  let page = 0;
  let found = data.rows;
  let exact = null;  /* one question, whole: a search field holds no line breaks */
  const haystacks = new Map();

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  for (const name of ["stage", "split", "task", "step"]) {
    const values = Array.from(new Set(data.rows.map((row) => row[column[name]]).filter((v) => v !== null && v !== "")));
    if (name === "step") values.sort((a, b) => a - b); else if (name === "task") values.sort();
    const select = field(name);
    select.append(new Option("all", ""));
    for (const value of values) select.append(new Option(String(value), String(value)));
    if (values.length < 2) select.closest("label").hidden = true;
  }

  /* Tags, line breaks, tabs, spaces that would be overlooked, and characters that have no shape. */
  const odd = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00a0\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/;
  const shown = "<\\/?[A-Za-z_][\\w-]*>|\\r?\\n|\\r|\\t|" + odd.source;
  function fill(node, text, markSpaces) {
    const pattern = new RegExp(shown + (markSpaces ? "| " : "| (?= )|(?<= ) |(?<=[a-z]>) | (?=<\\/?[a-z]|\\r?\\n|$)"), "gu");
    let from = 0;
    for (const match of text.matchAll(pattern)) {
      if (match.index > from) node.append(text.slice(from, match.index));
      const token = match[0];
      if (token === " ") node.append(make("span", "sp", " "));
      else if (token === "\t") node.append(make("span", "tab", "\t"));
      else if (/[\r\n]/.test(token)) node.append(make("span", "nl"), "\n");
      else if (token[0] === "<") node.append(make("span", "tag", token));
      else node.append(make("span", "odd", "U+" + token.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")));
      from = match.index + token.length;
    }
    node.append(text.slice(from));
  }

  function textCell(value, name) {
    const cell = make("td");
    cell.dataset.name = name;
    const text = make("div", "text");
    if (value === null || value === "") { text.classList.add("empty"); text.textContent = "(empty)"; }
    else fill(text, String(value), field("spaces").checked);
    cell.append(text);
    return cell;
  }

  function plainCell(value, name) {
    const cell = make("td", "", value === null ? "–" : String(value));
    cell.dataset.name = name;
    return cell;
  }

  function rewardCell(value) {
    const cell = make("td");
    cell.dataset.name = "reward";
    const text = typeof value === "number" ? String(Math.round(value * 1000) / 1000) : "–";
    cell.append(make("span", "badge " + (value >= 1 ? "right" : "wrong"), text));
    return cell;
  }

  function rowOf(row) {
    const get = (name) => row[column[name]];
    const line = make("tr");
    const question = textCell(get("question"), "question");
    const same = make("button", "linkish", "all answers to this");
    same.type = "button";
    same.addEventListener("click", () => { clear(); exact = get("question"); field("text").value = exact; refresh(); });
    question.append(same);
    line.append(question, textCell(get("response"), "response"), textCell(get("answer"), "reference"), rewardCell(get("reward")));
    for (const name of ["task", "stage", "step", "split"]) line.append(plainCell(get(name), name));
    return line;
  }

  function haystack(row) {
    if (!haystacks.has(row)) haystacks.set(row, ["question", "response", "answer"].map((n) => row[column[n]] ?? "").join("\n").toLowerCase());
    return haystacks.get(row);
  }

  function matches(row) {
    for (const name of ["stage", "split", "task", "step"]) {
      if (field(name).value && String(row[column[name]]) !== field(name).value) return false;
    }
    const wanted = field("reward").value;
    if (wanted && (row[column.reward] >= 1) !== (wanted === "right")) return false;
    if (exact !== null) return row[column.question] === exact;
    const text = field("text").value.toLowerCase();
    return !text || haystack(row).includes(text);
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / perPage));
    page = Math.min(Math.max(page, 0), pages - 1);
    body.replaceChildren(...found.slice(page * perPage, (page + 1) * perPage).map(rowOf));
    const right = found.filter((row) => row[column.reward] >= 1).length;
    const share = found.length ? ` · ${right} right (${Math.round((100 * right) / found.length)} %)` : "";
    for (const node of all("count")) node.textContent = `${found.length} sample${found.length === 1 ? "" : "s"}${share}`;
    for (const node of all("page")) node.textContent = `page ${page + 1} of ${pages}`;
    for (const button of document.querySelectorAll('[data-action="previous"]')) button.disabled = page === 0;
    for (const button of document.querySelectorAll('[data-action="next"]')) button.disabled = page >= pages - 1;
    for (const text of body.querySelectorAll(".text")) {
      if (text.scrollHeight <= text.clientHeight + 4) continue;
      const more = make("button", "more", "show all");
      more.type = "button";
      more.addEventListener("click", () => { more.textContent = text.classList.toggle("open") ? "show less" : "show all"; });
      text.after(more);
    }
  }

  function refresh() {
    const sign = field("order").value === "first" ? 1 : -1;
    found = data.rows.filter(matches).sort((a, b) => sign * (a[column.step] - b[column.step]));
    page = 0;
    draw();
  }
  function clear() {
    exact = null;
    for (const name of ["stage", "split", "task", "step", "reward", "text"]) field(name).value = "";
  }

  for (const control of document.querySelectorAll("[data-filter]")) {
    const search = control.type === "search";
    control.addEventListener(search ? "input" : "change", () => { if (search) exact = null; refresh(); });
  }
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => {
      if (button.dataset.action === "clear") { clear(); refresh(); return; }
      page += button.dataset.action === "next" ? 1 : -1;
      draw();
      document.getElementById("samples").scrollIntoView();
    });
  }
  refresh();
  document.documentElement.setAttribute("data-samples", String(data.rows.length));
})();
