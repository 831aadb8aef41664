// What the server answers; what it refuses becomes an error with sentences.

export class Refused extends Error {
  constructor(problems, status) {
    super(problems.join("\n"));
    this.problems = problems;
    this.status = status;
  }
}

async function answered(path, options) {
  let reply;
  try {
    reply = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(["The server does not answer. Is it still running?"], 0);
  }
  if (reply.ok) return reply;
  let problems = [`The server answered ${reply.status}.`];
  try {
    problems = (await reply.json()).problems ?? problems;
  } catch { /* not JSON: the number has to do */ }
  throw new Refused(problems, reply.status);
}

export const ask = async (path, options = {}) => (await answered(path, options)).json();

export const picture = async (path, options = {}) => (await answered(path, options)).blob();

export const send = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const image = (number) => `/web/figures/${number}/image.png`;
