// The browser of all answers: search, filters, order, pages. Text that models wrote becomes text nodes, never markup.
"use strict";

const PAGE = 20;
const CELLS = 160000; // of the table of a comparison: two texts of 400 words
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const teacher = data.roles.indexOf("teacher");
const state = { found: [], from: 0 };

// --- finding ---

const textOf = (item, role) => (typeof item.texts[role] === "number" ? item.texts[item.texts[role]] : item.texts[role]);
const kinds = {
  regressed: (item) => item.regressed,
  better: (item) => item.gap > 0,
  differs: (item) => teacher >= 0 && item.texts[teacher] !== 0,
  noted: (item) => item.notes.length > 0,
};
const orders = {
  given: () => 0,
  worst: (a, b) => a.rank - b.rank,
  best: (a, b) => b.rank - a.rank,
  unsure: (a, b) => (a.confidence ?? 2) - (b.confidence ?? 2),
  sure: (a, b) => (b.confidence ?? -1) - (a.confidence ?? -1),
  longest: (a, b) => b.texts[0].length - a.texts[0].length,
};

function haystack(item) {
  const said = item.texts.filter((text) => typeof text === "string");
  item.words ??= [item.id, item.prompt, item.reference ?? "", ...said].join("\n").toLowerCase();
  return item.words;
}

function find() {
  const wanted = $("text").value.trim().toLowerCase();
  const kind = kinds[$("show").value];
  const slice = $("slice")?.value;
  state.found = data.items
    .filter((item) => (!kind || kind(item)) && (!slice || item.slice === slice) && (!wanted || haystack(item).includes(wanted)))
    .sort(orders[$("order").value]);
  state.from = 0;
  show();
}

// --- showing ---

function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children.filter((child) => child !== null));
  return element;
}

function show() {
  const { found, from } = state;
  const to = Math.min(from + PAGE, found.length);
  $("found").textContent = found.length
    ? `${found.length.toLocaleString("en")} of ${data.items.length.toLocaleString("en")} items`
    : "No item matches.";
  $("list").replaceChildren(...found.slice(from, to).map(article));
  $("pages").hidden = found.length <= PAGE;
  $("page").textContent = `${from + 1} to ${to} of ${found.length.toLocaleString("en")}`;
  $("previous").disabled = from === 0;
  $("following").disabled = to === found.length;
}

function article(item) {
  const head = make("header", "");
  data.roles.slice(0, 3).forEach((role, number) => {
    if (item.scores[number] !== null) head.append(make("b", "", `${role} ${scored(item.scores[number])}`));
  });
  if (item.slice !== null) head.append(make("span", "", item.slice));
  if (item.confidence !== null) head.append(make("span", "", `confidence ${item.confidence.toFixed(2)}`));
  item.notes.forEach((note) => head.append(make("span", "tag", note)));
  head.append(make("span", "id", item.id));
  const asked = make("dl", "asked", pair("prompt", item.prompt), item.reference === null ? null : pair("reference", item.reference));
  const answers = make("dl", "answers");
  data.roles.forEach((role, number) => {
    if (item.texts[number] === null) return;
    const same = item.texts[number];
    const score = number > 2 && item.scores[number] !== null ? `${role} ${scored(item.scores[number])}` : role;
    const box = pair(score, "");
    box.className = `row ${role}`;
    if (typeof same === "number") box.lastChild.append(make("span", "nothing", `the same as ${data.roles[same]}`));
    else if (number === teacher || teacher < 0) box.lastChild.append(same || "nothing");
    else box.lastChild.append(...marked(textOf(item, teacher) ?? "", same));
    answers.append(box);
  });
  return make("article", "panel case", head, asked, answers);
}

const scored = (score) => (data.share ? (score > 50 ? "right" : "wrong") : Math.round(score));
const pair = (name, text) => make("div", "", make("dt", "", name), make("dd", "", text));

// --- what differs ---

// The text with marks on words that are only in it and on words that are only in `wanted`; plain where little is alike.
function marked(wanted, text) {
  if (!text) return [make("span", "nothing", "nothing")];
  const [old, now] = [wanted, text].map((one) => one.match(/\S+\s*|\s+/g) ?? []);
  const alike = old.length * now.length > CELLS ? [] : common(old.map((word) => word.trim()), now.map((word) => word.trim()));
  if ((2 * alike.length) / Math.max(1, old.length + now.length) < 0.3) return [text];
  const parts = [];
  let [i, j] = [0, 0];
  for (const [a, b] of [...alike, [old.length, now.length]]) {
    if (a > i) parts.push(...mark("del", old.slice(i, a).join("")));
    if (b > j) parts.push(...mark("ins", now.slice(j, b).join("")));
    if (b < now.length) parts.push(now[b]);
    [i, j] = [a + 1, b + 1];
  }
  return parts;
}

function mark(tag, words) {
  const kept = words.trimEnd();
  return [make(tag, "", kept), words.slice(kept.length) || " "];
}

// The places of a longest common subsequence.
function common(a, b) {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      longest[i * width + j] =
        a[i] === b[j]
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
  const pairs = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; )
    if (a[i] === b[j]) pairs.push([i++, j++]);
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  return pairs;
}

// --- using ---

let waiting = 0;
$("find").addEventListener("submit", (event) => event.preventDefault());
$("find").addEventListener("change", find);
$("text").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(find, 120);
});
function turn(pages) {
  state.from += pages * PAGE;
  show();
  $("all").scrollIntoView();
}
$("previous").addEventListener("click", () => turn(-1));
$("following").addEventListener("click", () => turn(1));
$("find").hidden = false;
find();
