// The API page: reads openapi.json of its own hub and shows it. Nothing of a document or an answer becomes markup:
// everything goes in as text. The token lies in sessionStorage, so it ends with the tab.
"use strict";

const ROOT = new URL(".", document.baseURI);
const TOKEN = "holdfast-token";
const SHOWN_MAX = 100000;
const DEPTH_MAX = 6;
let api = null;

/** An element: attributes by name, `on…` as listeners; children are elements or text. */
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children.filter((each) => each instanceof Node || (typeof each === "string" && each !== "")));
  return found;
}

/** Text in which `this` is code. */
function prose(text) {
  return String(text || "").split("`").map((part, n) => (n % 2 ? make("code", {}, part) : part));
}

function paragraphs(text) {
  return String(text || "").split(/\n\s*\n/).filter(Boolean).map((each) => make("p", {}, ...prose(each)));
}

// -- schemas --------------------------------------------------------------------------------------------------------

function resolve(schema) {
  let found = schema || {};
  while (found.$ref) {
    const { $ref, ...rest } = found;
    found = { ...$ref.split("/").slice(1).reduce((place, name) => place[name], api), ...rest };
  }
  return found;
}

function choices(schema) {
  return (schema.anyOf || schema.oneOf || []).filter((each) => each.type || each.$ref || each.anyOf || each.enum);
}

function typeOf(given, depth = 0) {
  const schema = resolve(given);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (!schema.type && choices(schema).length) return choices(schema).map((each) => typeOf(each, depth)).join(" | ");
  if (schema.type === "array") return `list of ${depth < 3 && schema.items ? typeOf(schema.items, depth + 1) : "values"}`;
  if (Array.isArray(schema.type)) return schema.type.join(" | ");
  if (schema.type === "object" && schema.title) return schema.title;
  return { string: "text", integer: "whole number", boolean: "true | false" }[schema.type] || schema.type || "any JSON";
}

/** What a value means: said of it, or of the one thing that it is unless it is null. */
function meaning(given) {
  const schema = resolve(given);
  return schema.description || choices(schema).map((each) => resolve(each)).find((each) => each.description && !each.properties)?.description;
}

function bounds(given) {
  const whole = resolve(given);
  const some = choices(whole).filter((each) => each.type !== "null");
  const schema = !whole.type && some.length === 1 ? { ...resolve(some[0]), default: whole.default } : whole;
  const said = [];
  if (schema.minimum !== undefined) said.push(`≥ ${schema.minimum}`);
  if (schema.maximum !== undefined && schema.maximum < 2 ** 53) said.push(`≤ ${schema.maximum}`);
  if (schema.minLength) said.push(`at least ${schema.minLength} long`);
  if (schema.maxLength) said.push(`at most ${schema.maxLength} long`);
  if (schema.maxItems) said.push(`at most ${schema.maxItems}`);
  if (schema.default !== undefined && schema.default !== null) said.push(`unless said ${JSON.stringify(schema.default)}`);
  return said.join(", ");
}

/** The schemas with properties that a value may have, through lists and choices. */
function shapes(given, depth = 0) {
  const schema = resolve(given);
  if (depth > DEPTH_MAX) return [];
  if (schema.properties && schema.title) return [schema];
  if (schema.type === "array") return shapes(schema.items, depth + 1);
  if (choices(schema).length) return choices(schema).flatMap((each) => shapes(each, depth + 1));
  return schema.properties ? [schema] : [];
}

function field(name, schema, { required = false, description = "", where = "", depth = 0 } = {}) {
  const about = resolve(schema);
  const inner = depth < DEPTH_MAX ? shapes(about) : [];
  return make("div", {},
    make("dt", {},
      make("code", {}, name),
      make("span", { class: "type" }, typeOf(schema)),
      where && make("span", { class: "where note" }, where),
      required && make("span", { class: "must" }, "needed")),
    make("dd", {},
      ...prose([description || meaning(schema), bounds(schema)].filter(Boolean).join("; ")),
      ...inner.map((each) => make("details", { class: "deeper" },
        make("summary", {}, each.title || "its fields"), fields(each, depth + 1)))));
}

function fields(schema, depth = 0) {
  const needed = new Set(schema.required || []);
  return make("dl", { class: "fields" }, ...Object.entries(schema.properties || {}).map(
    ([name, each]) => field(name, each, { required: needed.has(name), depth })));
}

function shape(given) {
  const found = shapes(given);
  const schema = resolve(given);
  if (!found.length) return [make("p", { class: "type" }, typeOf(given))];
  const list = schema.type === "array" ? [make("p", { class: "note" }, "A list of these:")] : [];
  return [...list, ...found.flatMap((each) => [
    found.length > 1 ? make("p", { class: "note" }, each.title) : null, ...paragraphs(each.description), fields(each)])]
    .filter(Boolean);
}

/** A value that a schema describes, to begin from. */
function example(given, depth = 0) {
  const schema = resolve(given);
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.enum) return schema.enum.find((each) => each !== "") ?? schema.enum[0];
  if (depth > DEPTH_MAX) return null;
  if (schema.properties) {
    const needed = new Set([...(schema.required || []), ...((schema.anyOf || [])[0]?.required || [])]);
    return Object.fromEntries(Object.entries(schema.properties).filter(([name]) => needed.has(name))
      .map(([name, each]) => [name, example(each, depth + 1)]));
  }
  if (schema.type === "array") return schema.items ? [example(schema.items, depth + 1)] : [];
  if (choices(schema).length) return example(choices(schema)[0], depth + 1);
  return { string: "text", integer: 0, number: 0, boolean: false, object: {} }[schema.type] ?? "any JSON";
}

// -- one operation ----------------------------------------------------------------------------------------------------

function operations() {
  return Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(
    ([method, about]) => ({ method: method.toUpperCase(), path, ...about })));
}

function card(operation) {
  const inside = make("div", { class: "inside" });
  const found = make("details", { class: "operation", id: operation.operationId },
    make("summary", {},
      make("span", { class: `method ${operation.method.toLowerCase()}` }, operation.method),
      make("span", { class: "path" }, operation.path),
      make("span", { class: "summary" }, operation.summary)),
    inside);
  // Filled when it is first opened: a hub has a hundred of these.
  found.addEventListener("toggle", () => {
    if (found.open && !inside.childElementCount) inside.append(...body(operation));
  });
  return found;
}

function body(operation) {
  const parts = [...paragraphs(operation.description)];
  const needs = (operation.security || []).flatMap((each) => Object.values(each).flat());
  parts.push(make("p", { class: "note" }, ...(needs.length
    ? ["Needs a token with the scope ", make("code", {}, needs.join(", ")), "."] : ["Open to all."])));
  if (operation.parameters) {
    parts.push(make("h3", {}, "Parameters"), make("dl", { class: "fields" }, ...operation.parameters.map((each) => field(
      each.name, each.schema, { required: each.required, description: each.description, where: `in ${each.in}` }))));
  }
  if (operation.requestBody) {
    const content = operation.requestBody.content;
    parts.push(make("h3", {}, "Body"), make("p", { class: "note" }, Object.keys(content).join(" or ").replace("*/*", "bytes")));
    const said = Object.values(content)[0].schema;
    if (said) parts.push(...shape(said));
  }
  parts.push(make("h3", {}, "Answers"), answers(operation), ...tryIt(operation));
  return parts;
}

function answers(operation) {
  const all = Object.entries(operation.responses);
  const good = all.filter(([, given]) => !given.$ref);
  const bad = all.filter(([, given]) => given.$ref);
  const one = ([status, given], formed) => {
    const answer = resolve(given);
    const kinds = Object.entries(answer.content || {});
    const said = formed && kinds.length ? kinds[0][1].schema : null;
    return make("div", {},
      make("dt", {},
        make("code", { class: status < "400" ? "good" : "bad" }, status),
        formed && make("span", { class: "type" }, kinds.map(([kind]) => kind).join(" or "))),
      make("dd", {}, ...prose(answer.description),
        said && make("details", { class: "deeper" }, make("summary", {}, resolve(said).title || "its form"), ...shape(said))));
  };
  return make("dl", { class: "fields" }, ...good.map((each) => one(each, true)),
    bad.length > 0 && make("div", {},
      make("dt", {}, make("span", { class: "bad" }, "Errors")),
      make("dd", {}, make("details", { class: "deeper" },
        make("summary", {}, bad.map(([status]) => status).join(" ")),
        make("dl", { class: "fields" }, ...bad.map((each) => one(each, false))),
        make("p", { class: "note" }, "All of this form:"), ...shape(api.components.schemas.ErrorAnswer)))));
}

// -- trying it --------------------------------------------------------------------------------------------------------

function input(each) {
  const schema = resolve(each.schema);
  const about = { name: each.name, "data-in": each.in, "data-list": schema.type === "array" };
  const first = each.in === "path" || each.required ? example(each.schema) : "";
  let control;
  if (schema.enum) {
    control = make("select", about, ...["", ...schema.enum].map((value) => make("option", { selected: value === first }, value)));
  } else {
    control = make("input", { ...about, value: first, placeholder: schema.default ?? "", spellcheck: "false", autocomplete: "off" });
  }
  return make("label", {}, each.name + (schema.type === "array" ? " (several: one, two)" : ""), control);
}

function request(form, operation) {
  let path = operation.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const control of form.querySelectorAll("[data-in]")) {
    const { value, name } = control;
    if (control.dataset.in === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
    else if (value === "") continue;
    else if (control.dataset.in === "header") headers[name] = value;
    else for (const one of "list" in control.dataset ? value.split(",").map((part) => part.trim()) : [value]) query.append(name, one);
  }
  const asked = query.size ? `?${query}` : "";
  const text = form.querySelector("textarea");
  const file = form.querySelector("input[type=file]");
  if (text) headers["Content-Type"] = "application/json";
  else if (file) headers["Content-Type"] = file.dataset.kind;
  const content = text ? text.value : file ? file.files[0] || new Blob([]) : undefined;
  return { url: new URL(path.slice(1) + asked, ROOT), method: operation.method, headers, content };
}

function quoted(text) {
  return `'${String(text).replaceAll("'", "'\\''")}'`;
}

function curl({ url, method, headers, content }, operation) {
  const words = ["curl", method === "HEAD" ? "--head" : method === "GET" ? "" : `-X ${method}`, quoted(url)];
  if ((operation.security || []).length) words.push('-H "Authorization: Bearer $HOLDFAST_TOKEN"');
  for (const [name, value] of Object.entries(headers)) words.push("-H", quoted(`${name}: ${value}`));
  if (typeof content === "string") words.push("-d", quoted(content));
  else if (content) words.push("--data-binary @file");
  return words.filter(Boolean).join(" ");
}

function tryIt(operation) {
  const kinds = Object.entries(operation.requestBody?.content || {});
  const json = kinds.find(([kind]) => kind === "application/json");
  const line = make("pre", {});
  const result = make("div", { role: "status", "aria-live": "polite" });
  const send = make("button", {}, "Send");
  const stop = make("button", { type: "button", class: "quiet", hidden: true }, "Stop");
  const form = make("form", { class: "try", autocomplete: "off" },
    ...(operation.parameters || []).map(input),
    json && make("label", { class: "wide" }, "Body",
      make("textarea", { spellcheck: "false" }, JSON.stringify(example(json[1].schema), null, 2))),
    kinds.length && !json && make("label", { class: "wide" }, "Body",
      make("input", { type: "file", "data-kind": kinds[0][0].replace("*/*", "application/octet-stream") })),
    make("div", { class: "doing wide" }, send, stop));
  const told = () => { line.textContent = curl(request(form, operation), operation); };
  form.addEventListener("input", told);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const ending = new AbortController();
    stop.onclick = () => ending.abort();
    send.disabled = true;
    stop.hidden = false;
    try {
      await ask(request(form, operation), result, ending.signal);
    } finally {
      send.disabled = false;
      stop.hidden = true;
    }
  });
  told();
  const copy = make("button", { type: "button", class: "quiet", onclick: async () => {
    await navigator.clipboard.writeText(line.textContent);
    copy.textContent = "Copied";
  } }, "Copy");
  return [make("div", { class: "line" }, make("h3", {}, "With curl"), navigator.clipboard ? copy : null), line,
    make("h3", {}, "Try it"), form, result];
}

async function ask({ url, method, headers, content }, result, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const sent = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  const shown = make("pre", {});
  result.replaceChildren(make("p", { class: "note" }, "Waiting…"));
  const began = performance.now();
  try {
    const answer = await fetch(url, { method, headers: sent, body: content, signal, credentials: "omit", cache: "no-store" });
    const took = Math.round(performance.now() - began);
    const kind = answer.headers.get("content-type") || "";
    const more = ["etag", "retry-after", "content-range", "upload-offset"].filter((name) => answer.headers.has(name));
    result.replaceChildren(
      make("p", {}, make("strong", { class: answer.ok ? "good" : "bad" }, `${answer.status} ${answer.statusText}`),
        ` in ${took} ms, ${kind || "no body"}`, ...more.map((name) => make("span", { class: "note" }, ` · ${name}: ${answer.headers.get(name)}`))),
      shown);
    await read(answer, kind, shown);
  } catch (error) {
    if (error.name === "AbortError") shown.append("\n(stopped)");
    else result.replaceChildren(make("p", { class: "bad" }, `No answer: ${error.message}`));
  }
}

/** Shows a body as it comes, as a stream has no end; what is JSON is laid out at the end. */
async function read(answer, kind, shown) {
  if (!/json|text|javascript/.test(kind)) {
    shown.textContent = `${(await answer.arrayBuffer()).byteLength} bytes`;
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value;
    if (text.length > SHOWN_MAX) {
      shown.textContent = `${text.slice(0, SHOWN_MAX)}\n(cut here)`;
      await reader.cancel();
      return;
    }
    shown.textContent = text;
  }
  // Laid out as text: parsing would round the numbers above 2^53.
  shown.textContent = /json/.test(kind) ? laidOut(text) : text;
}

function laidOut(text) {
  let out = "", depth = 0, inText = false;
  for (let n = 0; n < text.length; n += 1) {
    const sign = text[n];
    if (inText) {
      out += sign;
      if (sign === "\\") out += text[(n += 1)];
      else if (sign === '"') inText = false;
    } else if (sign === '"') { inText = true; out += sign; }
    else if ((sign === "{" || sign === "[") && "}]".includes(text[n + 1])) { out += sign + text[(n += 1)]; }
    else if (sign === "{" || sign === "[") { depth += 1; out += `${sign}\n${"  ".repeat(depth)}`; }
    else if (sign === "}" || sign === "]") { depth -= 1; out += `\n${"  ".repeat(Math.max(depth, 0))}${sign}`; }
    else if (sign === ",") out += `,\n${"  ".repeat(depth)}`;
    else if (sign === ":") out += ": ";
    else out += sign;
  }
  return out;
}

// -- the page -----------------------------------------------------------------------------------------------------------

function show() {
  const listed = operations();
  const main = document.getElementById("operations");
  const nav = document.getElementById("contents");
  for (const { name } of api.tags) {
    const mine = listed.filter((each) => each.tags.includes(name));
    main.append(make("section", {}, make("h2", {}, name), ...mine.map(card)));
    nav.append(make("h2", {}, name), make("ul", {}, ...mine.map((each) => make("li", {},
      make("a", { href: `#${each.operationId}`, title: `${each.method} ${each.path}` }, each.summary)))));
  }
  document.getElementById("about").replaceChildren(...prose(api.info.description));
  document.getElementById("version").textContent = `OpenAPI ${api.openapi} of Holdfast ${api.info.version}`;
  document.documentElement.dataset.operations = listed.length;
}

function find(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const each of document.querySelectorAll("details.operation")) {
    const said = each.querySelector("summary").textContent.toLowerCase();
    each.hidden = !words.every((word) => said.includes(word));
  }
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = !section.querySelector("details.operation:not([hidden])");
  }
}

function open() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named && named.matches("details.operation")) {
    named.open = true;
    named.scrollIntoView();
  }
}

async function begin() {
  const token = document.getElementById("token");
  token.value = sessionStorage.getItem(TOKEN) || "";
  token.addEventListener("input", () => {
    if (token.value) sessionStorage.setItem(TOKEN, token.value.trim());
    else sessionStorage.removeItem(TOKEN);
  });
  document.getElementById("settings").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("find").addEventListener("input", (event) => find(event.target.value));
  try {
    const answer = await fetch(new URL("openapi.json", ROOT), { credentials: "omit" });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    api = await answer.json();
  } catch (error) {
    document.getElementById("about").textContent = `openapi.json cannot be read: ${error.message}`;
    return;
  }
  show();
  window.addEventListener("hashchange", open);
  open();
}

begin();
