// How many tokens (OpenAI's o200k) each text of a JSON file has: node count_tokens.mjs FILE, an object of strings.

import { readFileSync } from "node:fs";
import { Tiktoken } from "js-tiktoken/lite";
import o200k from "js-tiktoken/ranks/o200k_base";

const tokenizer = new Tiktoken(o200k);
const texts = Object.entries(JSON.parse(readFileSync(process.argv[2], "utf8")));
console.log(JSON.stringify(Object.fromEntries(texts.map(([name, text]) => [name, tokenizer.encode(text).length]))));
