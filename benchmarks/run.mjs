// pnpm bench NAME: runs benchmarks/NAME.mjs.
import { existsSync, readdirSync } from 'node:fs';

const [name = ''] = process.argv.slice(2);
const script = new URL(`./${name}.mjs`, import.meta.url);
const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.mjs') && !/^run\.|support/.test(file))
  .map((file) => file.replace('.mjs', ''));
if (!names.includes(name) || !existsSync(script)) {
  console.error(`There is no benchmark '${name}'; there are: ${names.join(', ')}`);
  process.exit(1);
}
await import(script.href);
