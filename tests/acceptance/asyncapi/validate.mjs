// Validates AsyncAPI documents by the parser of the AsyncAPI Initiative. Prints a line of JSON for each: what is wrong,
// and what is there.
//
// node validate.mjs path/to/asyncapi.json ...
//
// `validate` and not `parse`: that one also ties circular references into knots, which takes it minutes and says nothing.

import { readFileSync } from "node:fs";

import { AsyncAPIDocumentV3, fromFile, Parser } from "@asyncapi/parser";

const parser = new Parser();
for (const path of process.argv.slice(2)) {
  const diagnostics = await fromFile(parser, path).validate();
  // 0 is an error, 1 a warning; the others advise.
  const wrong = diagnostics.filter(({ severity }) => severity <= 1).map(({ path, message }) => `${path.join(".")}: ${message}`);
  const document = new AsyncAPIDocumentV3(JSON.parse(readFileSync(path, "utf-8")));
  console.log(JSON.stringify({ wrong, operations: document.operations().length, channels: document.channels().length }));
}
