// The grammar in the tokenizer of VS Code: scopes of a small text, and every spec of the repository.

import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import onigurumaModule from "vscode-oniguruma";
import textmate from "vscode-textmate";

const here = path.dirname(fileURLToPath(import.meta.url));
const folder = path.dirname(here);
const root = path.resolve(folder, "../..");
const require = createRequire(import.meta.url);

const wasm = readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm"));
await onigurumaModule.loadWASM(wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.byteLength));
const registry = new textmate.Registry({
  onigLib: Promise.resolve({
    createOnigScanner: (patterns) => new onigurumaModule.OnigScanner(patterns),
    createOnigString: (text) => new onigurumaModule.OnigString(text),
  }),
  loadGrammar: async () => {
    const file = path.join(folder, "syntaxes/aur.tmLanguage.json");
    return textmate.parseRawGrammar(readFileSync(file, "utf8"), file);
  },
});
const grammar = await registry.loadGrammar("source.aur");

/** Every token of a text with its innermost scope. */
function tokens(text) {
  const found = [];
  let stack = textmate.INITIAL;
  for (const line of text.split("\n")) {
    const { tokens, ruleStack } = grammar.tokenizeLine(line, stack);
    stack = ruleStack;
    for (const token of tokens) {
      const piece = line.slice(token.startIndex, token.endIndex).trim();
      if (piece) found.push([piece, token.scopes.at(-1).replace(/\.aur$/, "")]);
    }
  }
  return found;
}

function scope(text, piece) {
  const token = tokens(text).find(([word]) => word === piece);
  assert.ok(token, `${piece} is not a token of ${text}`);
  return token[1];
}

test("words of a block have their scopes", () => {
  const text = `/// Documentation.
import "lib/a.aur" { fi }
param peak = 1e-4 in 1e-5 .. 1e-3
stage cap {
  budget = 377B tokens @assumed("not \\"published\\"")
  learning_rate = cosine(peak = peak, warmup = 2000 steps) // a comment
  checkpoint = every 10B tokens
  plain = true
}
mixture m { en from [en] weight 12.5% max_epochs 4 }
expect ok { cap.humaneval.pass@1 >= small.humaneval.pass@1 - 2 pp }
profile p { stage.cap.budget = 1M tokens }`;
  const expected = {
    "/// Documentation.": "comment.line.documentation",
    import: "keyword.control.import",
    peak: "variable.other.constant",
    stage: "keyword.other.block",
    cap: "entity.name.type",
    budget: "variable.other.property",
    "377B": "constant.numeric",
    tokens: "keyword.other.unit",
    "@assumed": "storage.modifier.evidence",
    '\\"': "constant.character.escape",
    cosine: "entity.name.function",
    steps: "keyword.other.unit",
    "// a comment": "comment.line.double-slash",
    every: "keyword.other",
    true: "constant.language",
    "12.5%": "constant.numeric",
    max_epochs: "keyword.other",
    expect: "keyword.other.block",
    "pass@1": "variable.other.metric",
    ">=": "keyword.operator.comparison",
    pp: "keyword.other.unit",
    "stage.cap.budget": "variable.other.property",
  };
  for (const [piece, name] of Object.entries(expected)) {
    assert.equal(scope(text, piece), name, piece);
  }
});

test("a text that is not closed ends with its line", () => {
  assert.equal(scope('source a { from = "file:x\n}\nstage b {', "stage"), "keyword.other.block");
});

test("every word of every spec has a scope, and nothing is invalid", () => {
  const folders = ["specs", "specs/lib", "lang/tests/ok"].map((name) => path.join(root, name)).filter(existsSync);
  const files = folders.flatMap((name) => readdirSync(name).filter((file) => file.endsWith(".aur")).map((file) => path.join(name, file)));
  assert.ok(files.length >= 5, "the specs of the repository are there");
  for (const file of files) {
    for (const [piece, name] of tokens(readFileSync(file, "utf8"))) {
      assert.ok(!name.startsWith("invalid"), `${file}: ${piece}`);
      assert.ok(!/\w/.test(piece) || name !== "source", `${file}: ${piece} has no scope`);
    }
  }
});

test("everything that the manifest names is there", () => {
  const manifest = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8"));
  const { languages, grammars, snippets } = manifest.contributes;
  const files = [languages[0].configuration, grammars[0].path, snippets[0].path];
  for (const file of files) {
    JSON.parse(readFileSync(path.join(folder, file), "utf8"));
  }
});
