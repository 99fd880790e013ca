import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readHubSettings } from './settings.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'settings-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

it.each([
  { set: {}, cacheFolder: '/people/me/.cache/huggingface/hub' },
  { set: { XDG_CACHE_HOME: '/xdg' }, cacheFolder: '/xdg/huggingface/hub' },
  { set: { XDG_CACHE_HOME: '/xdg', HF_HOME: '/hf' }, cacheFolder: '/hf/hub' },
  { set: { HF_HOME: '~/hf' }, cacheFolder: '/people/me/hf/hub' },
  { set: { HF_HOME: '/hf', HF_HUB_CACHE: '/cache' }, cacheFolder: '/cache' },
  { set: { HF_HOME: '' }, cacheFolder: '/people/me/.cache/huggingface/hub' },
])('the cache with $set is $cacheFolder', async ({ set, cacheFolder }) => {
  const settings = await readHubSettings({ HOME: '/people/me', ...set });
  expect(settings).toEqual({ endpoint: 'https://huggingface.co', cacheFolder, offline: false });
});

it.each([
  ['1', true],
  ['TRUE', true],
  ['yes', true],
  ['on', true],
  ['0', false],
  ['', false],
  ['false', false],
])('HF_HUB_OFFLINE=%s is %s', async (HF_HUB_OFFLINE, offline) => {
  expect((await readHubSettings({ HOME: folder, HF_HUB_OFFLINE })).offline).toBe(offline);
});

it('the token is that of the variable, else of the file that the command line tool writes', async () => {
  writeFileSync(join(folder, 'token'), 'hf_file\n');
  expect((await readHubSettings({ HF_HOME: folder })).token).toBe('hf_file');
  expect((await readHubSettings({ HF_HOME: folder, HF_TOKEN: ' hf_variable ' })).token).toBe('hf_variable');
  expect((await readHubSettings({ HOME: '/nowhere', HF_TOKEN_PATH: join(folder, 'token') })).token).toBe('hf_file');
});

it('the endpoint may have a path, but no slash at its end', async () => {
  const { endpoint } = await readHubSettings({ HOME: folder, HF_ENDPOINT: 'http://mirror:8080/hf/' });
  expect(endpoint).toBe('http://mirror:8080/hf');
});

it.each(['mirror', 'ftp://mirror', 'http://me:secret@mirror', 'http://mirror?secret'])(
  'the endpoint cannot be %s, which is not repeated',
  async (HF_ENDPOINT) => {
    const error = await readHubSettings({ HOME: folder, HF_ENDPOINT }).catch((reason) => reason);
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).not.toContain('secret');
  },
);
