// Answers as the native compiler would; started by ./solc. Refuses every option that the two callers never use.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const compiler = path.join(__dirname, "..", "node_modules", "solc");
const fail = (message) => {
  process.stderr.write(`solc: ${message}\n`);
  process.exit(1);
};
if (!fs.existsSync(compiler)) fail("node_modules/solc is missing; run 'make setup'");

const options = process.argv.slice(2);
const known = ["--version", "--standard-json", "--base-path", "--include-path", "--allow-paths", "-"];
const takesValue = new Set(["--base-path", "--include-path", "--allow-paths"]);
for (let i = 0; i < options.length; i++) {
  const name = options[i].split("=")[0];
  if (!known.includes(name)) fail(`option ${options[i]} is not supported; only --version and --standard-json are`);
  if (takesValue.has(name) && !options[i].includes("=")) i++;
}

if (options.includes("--version")) {
  // The JavaScript build says ".Emscripten.clang"; callers parse the shape of a native one.
  const version = require(compiler).version().replace("Emscripten.clang", "Linux.g++");
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
} else if (options.includes("--standard-json")) {
  // forge gives the files that a library imports relatively under other names than the compiler asks for; those, and
  // nothing but the libraries that npm installed, are read here. deploy/compile.py puts every source into the input.
  const libraries = path.join(__dirname, "..", "node_modules") + path.sep;
  const read = (name) => {
    const file = path.resolve(name);
    if (!file.startsWith(libraries) || !fs.existsSync(file)) return { error: "not among the sources" };
    return { contents: fs.readFileSync(file, "utf8") };
  };
  const output = require(compiler).compile(fs.readFileSync(0, "utf8"), { import: read });
  fs.writeFileSync(1, output + "\n");
} else {
  fail("say --version, or --standard-json with the input on stdin");
}
