// Validates an AsyncAPI document by the parser of the AsyncAPI Initiative. Prints what is wrong, and else what is there.
//
// node validate.mjs path/to/asyncapi.json

import { fromFile, Parser } from "@asyncapi/parser";

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
// 0 is an error, 1 a warning; the others advise.
const wrong = diagnostics.filter(({ severity }) => severity <= 1);
for (const { path, message } of wrong) console.error(`${path.join(".")}: ${message}`);
if (wrong.length > 0 || document === undefined) process.exit(1);
console.log(JSON.stringify({ operations: document.operations().length, channels: document.channels().length }));
