#!/usr/bin/env node
// splitlearn-proto OUT: writes OUT/generated/compute.{js,d.ts} (protobufjs static code) and OUT/proto (the
// sources, for server reflection and for clients in other languages).
import { cp, mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const require = createRequire(import.meta.url);
const pbjs = promisify(require('protobufjs-cli/pbjs').main);
const pbts = promisify(require('protobufjs-cli/pbts').main);

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? '.');
const generated = join(out, 'generated');
await mkdir(generated, { recursive: true });
await pbjs([
  ...[
    '-t',
    'static-module',
    '-w',
    'es6',
    '--force-number',
    '--no-create',
    '--no-verify',
    '--no-delimited',
    '--no-service',
  ],
  ...['-p', here, '-o', join(generated, 'compute.js'), 'splitlearn/comm/v1/compute.proto'],
]);
await pbts(['-o', join(generated, 'compute.d.ts'), join(generated, 'compute.js')]);
await cp(join(here, 'splitlearn'), join(out, 'proto', 'splitlearn'), { recursive: true });
