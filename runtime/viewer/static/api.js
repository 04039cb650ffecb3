// Questions to the server; all paths are relative to the page, which has the token.

export class ServerGone extends Error {}

export async function ask(path) {
  let answer;
  try {
    answer = await fetch(path);
  } catch {
    throw new ServerGone("The viewer has ended. Start sshr-deploy view again.");
  }
  if (!answer.ok) throw new Error((await answer.text()).trim() || `The server says ${answer.status}.`);
  return answer.json();
}
