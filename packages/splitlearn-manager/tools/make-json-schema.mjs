#!/usr/bin/env node
// Makes splitlearn.schema.json, what editors know of splitlearn.yaml: of the schemas in src/ and their comments.
//
//   npx tsc -p tsconfig.build.json && node tools/make-json-schema.mjs
//
// The file is committed, and a test says when it is out of date. Running this again gives the same bytes.
import { writeFileSync } from 'node:fs';
import { configurationJsonSchema } from '../dist/configuration/json-schema.js';
import { schemaText } from './json-schema.mjs';

writeFileSync(new URL('../splitlearn.schema.json', import.meta.url), schemaText(configurationJsonSchema()));
