/** The same verbs over HTTP and over Socket.IO, with answers of one shape, so that one suite holds for both. */
import type { Socket } from 'socket.io-client';
import type { Data, ServerProcess } from '../support/server-process.ts';

export interface Answer {
  /** null: it was done. */
  code: string | null;
  /** Over HTTP only. */
  status: number | null;
  data: Data;
}

export interface Driver {
  readonly name: string;
  call(verb: string, payload?: Record<string, unknown>, key?: string): Promise<Answer>;
}

type Route = [method: string, path: string, query?: string[]];

const routes: Record<string, Route> = {
  'workflow.save': ['POST', '/api/workflows', ['project']],
  'execution.start': ['POST', '/api/executions', ['project']],
  'execution.list': ['GET', '/api/executions'],
  'execution.get': ['GET', '/api/executions/:id'],
  'execution.results': ['GET', '/api/executions/:id/results'],
  'execution.events': ['GET', '/api/executions/:id/events'],
  'execution.stop': ['POST', '/api/executions/:id/stop'],
  'execution.receipt': ['GET', '/api/executions/:id/stop'],
  'execution.preview': ['GET', '/api/executions/:id/stop?preview=true'],
  'execution.trigger': ['POST', '/api/executions/:id/triggers/:name'],
  'execution.delete': ['DELETE', '/api/executions/:id'],
  'executions.stop': ['POST', '/api/stops', ['project']],
  'key.create': ['POST', '/api/keys'],
  'audit.list': ['GET', '/api/audit'],
  'admission.set': ['POST', '/api/admission'],
};

export function overHttp(server: ServerProcess): Driver {
  return {
    name: 'HTTP',
    async call(verb, payload = {}, key = server.key) {
      const route = routes[verb];
      if (route === undefined) throw new Error(`no route of ${verb} here`);
      const [method, pattern, queried = []] = route;
      const rest = { ...payload };
      let path = pattern.replace(/:(\w+)/g, (_, name: string) => {
        const value = String(rest[name]);
        delete rest[name];
        return encodeURIComponent(value);
      });
      const query = new URLSearchParams();
      for (const [name, value] of Object.entries(rest)) {
        if (method !== 'GET' && !queried.includes(name)) continue;
        query.set(name, String(value));
        delete rest[name];
      }
      if (query.size > 0) path += `${path.includes('?') ? '&' : '?'}${query}`;
      // A definition is the body itself.
      const body = verb === 'workflow.save' ? rest.definition : rest;
      const empty = method === 'GET' || method === 'DELETE' || Object.keys(rest).length === 0;
      const { status, data } = await server.http(method, path, empty ? undefined : body, { key });
      return { code: status < 400 ? null : data.code, status, data };
    },
  };
}

export function overSocket(server: ServerProcess): Driver {
  const sockets = new Map<string, Promise<Socket>>();
  return {
    name: 'Socket.IO',
    async call(verb, payload = {}, key = server.key) {
      let opening = sockets.get(key);
      if (opening === undefined) {
        opening = server.socket(key);
        sockets.set(key, opening);
      }
      const socket = await opening;
      const answer = await socket.timeout(10_000).emitWithAck(verb, payload);
      if (answer.ok) return { code: null, status: null, data: answer.data };
      return { code: answer.error.code, status: null, data: answer.error };
    },
  };
}
