// Validates a GLB with the Khronos validator: node gltf_validate.mjs FOLDER_WITH_node_modules FILE.glb
// Prints the report's issues as JSON; exit status 1 on any error.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
const [folder, file] = process.argv.slice(2);
const validator = createRequire(resolve(folder, "package.json"))("gltf-validator");
const report = await validator.validateBytes(new Uint8Array(readFileSync(file)), { maxIssues: 50 });
console.log(JSON.stringify(report.issues));
process.exit(report.issues.numErrors ? 1 : 0);
