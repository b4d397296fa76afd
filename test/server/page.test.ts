import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect } from 'chai';
import { type FastifyInstance, fastify } from 'fastify';
import { addPage } from '../../src/server/page.ts';

describe('the page', () => {
  const html = '<!doctype html><title>page</title>';
  let folder: string;
  let app: FastifyInstance;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'fullstop-page-'));
    mkdirSync(join(folder, 'assets'));
    writeFileSync(join(folder, 'index.html'), html);
    writeFileSync(join(folder, 'favicon.svg'), '<svg/>');
    writeFileSync(join(folder, 'THIRD-PARTY-NOTICES.md'), '# Notices');
    writeFileSync(join(folder, 'secret.txt'), 'not for you');
    writeFileSync(join(folder, 'assets', 'index-abc.js'), 'export {};');
    app = fastify();
    addPage(app, folder);
  });

  afterEach(async () => {
    await app.close();
    rmSync(folder, { recursive: true });
  });

  for (const url of ['/', '/executions', '/executions/01a/stop', '/workflows/order', '/engines', '/audit']) {
    it(`is served at ${url}, asked for anew each time, under a policy that allows only its own scripts`, async () => {
      const answer = await app.inject({ url });
      expect(answer.statusCode).to.equal(200);
      expect(answer.body).to.equal(html);
      expect(answer.headers['content-type']).to.equal('text/html; charset=utf-8');
      expect(answer.headers['cache-control']).to.equal('no-cache');
      expect(answer.headers['content-security-policy'])
        .to.match(/^default-src 'self';/)
        .and.not.to.contain('unsafe');
      expect(answer.headers['x-content-type-options']).to.equal('nosniff');
    });
  }

  it('shows the notices of what it contains as text', async () => {
    const answer = await app.inject({ url: '/THIRD-PARTY-NOTICES.md' });
    expect(answer.body).to.equal('# Notices');
    expect(answer.headers['content-type']).to.equal('text/plain; charset=utf-8');
  });

  it('answers 304 to who has it already', async () => {
    const { headers } = await app.inject({ url: '/' });
    const again = await app.inject({ url: '/', headers: { 'if-none-match': String(headers.etag) } });
    expect(again.statusCode).to.equal(304);
    expect(again.body).to.equal('');
  });

  it('keeps what is named by its content forever, and zips it for who can read that', async () => {
    const url = '/assets/index-abc.js';
    const answer = await app.inject({ url, headers: { 'accept-encoding': 'gzip, br' } });
    expect(answer.headers['cache-control']).to.equal('public, max-age=31536000, immutable');
    expect(answer.headers['content-encoding']).to.equal('gzip');
    expect(answer.headers['content-type']).to.equal('text/javascript; charset=utf-8');
    expect(gunzipSync(answer.rawPayload).toString()).to.equal('export {};');
    expect((await app.inject({ url })).body).to.equal('export {};');
  });

  for (const url of ['/assets/other.js', '/assets/..%2Fsecret.txt', '/assets/%2e%2e%2fsecret.txt', '/secret.txt']) {
    it(`has nothing at ${url}`, async () => {
      const answer = await app.inject({ url });
      expect(answer.statusCode).to.be.at.least(400);
      expect(answer.body).not.to.contain('not for you');
    });
  }
});
