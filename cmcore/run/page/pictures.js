// Pictures as canvases and PNGs, and on their way to a file.

export function element(name, options = {}, ...children) {
  const { dataset, ...rest } = options;
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.dataset, dataset || {});
  made.append(...children);
  return made;
}

export async function loaded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

export function base64(canvas) {
  return canvas.toDataURL("image/png").split(",")[1];
}

// Downloads one picture as it is, several as a grid, pixel for pixel.
export async function download(sources, columns, name) {
  const images = await Promise.all(sources.map(loaded));
  const wide = images[0].naturalWidth, high = images[0].naturalHeight, gap = images.length > 1 ? 2 : 0;
  const canvas = element("canvas", {
    width: Math.min(columns, images.length) * (wide + gap) + gap,
    height: Math.ceil(images.length / columns) * (high + gap) + gap,
  });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  images.forEach((image, i) => pen.drawImage(image, gap + (i % columns) * (wide + gap), gap + Math.floor(i / columns) * (high + gap)));
  element("a", { href: canvas.toDataURL("image/png"), download: name }).click();
}
