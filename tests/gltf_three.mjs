// Reads a GLB with three.js: node gltf_three.mjs FOLDER_WITH_node_modules FILE.glb WEIGHTS.json
// WEIGHTS.json: name of a morph target -> weight. Prints for each mesh, as JSON, its material, the names of its targets
// in order, the kind of its texture and where those weights put its vertices.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
const [folder, file, weights] = process.argv.slice(2);
const code = JSON.parse(readFileSync(weights));
// What a browser has and node lacks; pictures are not decoded.
globalThis.self = globalThis;
globalThis.createImageBitmap = async (blob) => ({ width: 1, height: 1, kind: blob.type, close() {} });
const three = resolve(folder, "node_modules", "three");
const load = (path) => import(pathToFileURL(resolve(three, path)));
const { Vector3 } = await load("build/three.module.js");
const { GLTFLoader } = await load("examples/jsm/loaders/GLTFLoader.js");
const { scene } = await new GLTFLoader().parseAsync(new Uint8Array(readFileSync(file)).buffer, "");
scene.updateMatrixWorld(true);
const meshes = [];
scene.traverse((mesh) => {
  if (!mesh.isMesh) return;
  const names = Object.entries(mesh.morphTargetDictionary).sort((a, b) => a[1] - b[1]).map(([name]) => name);
  names.forEach((name, number) => (mesh.morphTargetInfluences[number] = code[name]));
  const positions = [], point = new Vector3();
  for (let vertex = 0; vertex < mesh.geometry.attributes.position.count; vertex++)
    positions.push(...mesh.localToWorld(mesh.getVertexPosition(vertex, point)).toArray());
  const { name: material, vertexColors: vertexColours, map } = mesh.material;
  meshes.push({ material, names, vertexColours, picture: map ? map.image.kind : null, positions });
});
console.log(JSON.stringify(meshes));
