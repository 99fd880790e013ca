// The texts that are generated, always by the likeliest token.
export const TOKENS = 64;
export const PROMPTS = [
  'In the beginning',
  'The king',
  'Once upon a time',
  'And the people said',
  'There was a man in the land',
  'O Lord',
  'She walked along the river and',
  'What is',
];
