export function memory(): Promise<{ heap: number; external: number; rss: number }>;
