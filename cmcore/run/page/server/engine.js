// The pictures are computed by the server that the page is from.

async function answered(response) {
  const content = await response.json().catch(() => ({ error: "The server's answer cannot be read." }));
  if (!response.ok) throw new Error(content.error);
  return content;
}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is cmcore play still running?");
  }
  return answered(response);
}

const png = (text) => `data:image/png;base64,${text}`;

export const about = () => asked("about.json");

export async function run(request) {
  const made = await asked("run", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });
  return { ...made, pictures: made.pictures.map(png), frames: made.frames.map((frame) => ({ ...frame, pictures: frame.pictures.map(png) })) };
}

// A file as the model takes it.
export async function fit(file, model) {
  const made = await asked(`picture?model=${model}`, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
  return { picture: png(made.picture), note: made.note };
}
