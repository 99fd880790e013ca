import { existsSync, readFileSync } from 'node:fs';

/**
 * The JavaScript examples of a Markdown file that have a name: a line `<!-- example: NAME -->`, and directly below it
 * a fenced `js` block. The block is a whole program: it prints something and ends by itself.
 *
 * @param {string | URL} file
 * @returns {Map<string, string>} name → program; empty when there is no such file
 */
export function readExamples(file) {
  const examples = new Map();
  const markdown = existsSync(file) ? readFileSync(file, 'utf8') : '';
  for (const [, name = '', block = ''] of markdown.matchAll(/^<!-- example: (.+) -->\n([\s\S]*?\n```$|.*)/gm)) {
    const program = /^```js\n([\s\S]*)```$/.exec(block)?.[1];
    if (program === undefined) throw new Error(`${file}: example '${name}' is not followed by a \`\`\`js block.`);
    if (examples.has(name)) throw new Error(`${file}: two examples are named '${name}'.`);
    examples.set(name, program);
  }
  return examples;
}

/**
 * @param {string | URL} file
 * @param {string} name
 */
export function readExample(file, name) {
  const program = readExamples(file).get(name);
  if (program === undefined) {
    throw new Error(
      `${file} has no example '${name}': put <!-- example: ${name} --> directly above its \`\`\`js block.`,
    );
  }
  return program;
}
