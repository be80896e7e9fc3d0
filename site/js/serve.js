/** In a worker: the answers of `work(message)` are sent back under the message's id, until a newer message comes. */
export function serve(work) {
  let latest;
  onmessage = async ({ data }) => {
    const id = latest = data.id;
    try {
      for await (const answer of work(data)) {
        postMessage({ id, ...answer });
        await new Promise(go => setTimeout(go));                // a newer message is heard here
        if (id !== latest) return;
      }
    } catch (error) { postMessage({ id, error: error.message }); }
  };
}
