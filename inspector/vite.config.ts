import { join } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const NOTICES = 'THIRD-PARTY-NOTICES.md';

/** EPL-2.0, of elkjs, asks whoever passes a program on to say where its source is. */
const sayWhereSourcesAre: Plugin = {
  name: 'say-where-sources-are',
  enforce: 'post',
  generateBundle: {
    order: 'post',
    handler(_options, bundle) {
      const notices = bundle[NOTICES];
      if (notices?.type !== 'asset') throw new Error(`vite made no ${NOTICES}`);
      notices.source = `# Third-party notices

The inspector's scripts and styles in this folder contain the packages below, each under its own licence and as its
authors published it. The source of each is what the npm registry has under its name and version
(\`npm pack NAME@VERSION\`). elkjs is used under the Eclipse Public License 2.0; the source that it is made from is at
https://github.com/kieler/elkjs, under the same licence.
${String(notices.source).replace(/^# Licenses\n\n.*\n/, '')}`;
    },
  },
};

export default defineConfig({
  root: import.meta.dirname,
  plugins: [sayWhereSourcesAre],
  resolve: {
    alias: {
      // Its style element breaks the page's content security policy, and the page itself never scrolls.
      'react-remove-scroll': join(import.meta.dirname, 'src/scroll-lock.tsx'),
    },
  },
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    license: { fileName: NOTICES },
    rolldownOptions: {
      onwarn(warning, warn) {
        // Every file of radix-ui says "use client", which means nothing here.
        if (warning.code !== 'MODULE_LEVEL_DIRECTIVE') warn(warning);
      },
    },
  },
});
