// Files that are dropped: of folders, everything below them.

export async function dropped(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const files = [];
  for (const entry of entries) if (entry) await collect(entry, "", files);
  return files;
}

async function collect(entry, path, files) {
  if (entry instanceof File) files.push({ name: entry.name, file: entry });
  else if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    files.push({ name: path + file.name, file });
  } else {
    const reader = entry.createReader();
    for (;;) { // a reader gives a hundred at a time
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const inside of some) await collect(inside, `${path}${entry.name}/`, files);
    }
  }
}

export const picked = (input) => [...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));

const FORM = 1024; // bytes of a request beside its files
const inForm = ({ name, file }) => file.size + 3 * name.length + 256;
const megabytes = (bytes) => `${(bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 2 })} MB`;

// What the server would not take; it is told here, as a browser hears nothing of an upload that is cut.
export function tooLarge(files, limit) {
  return files.filter((one) => inForm(one) > limit - FORM).map(({ name, file }) =>
    `${name}: expected a file of at most ${megabytes(limit)} but got ${megabytes(file.size)}. atypia serve --max-body-mb allows more.`);
}

// Requests of a size that the server takes.
export function portions(files, limit, most = 64) {
  const bytes = Math.min(16 * 2 ** 20, limit - FORM);
  const parts = [];
  let part = [], size = 0;
  for (const one of files) {
    if (part.length && (part.length >= most || size + inForm(one) > bytes)) {
      parts.push(part);
      part = [];
      size = 0;
    }
    part.push(one);
    size += inForm(one);
  }
  return part.length ? [...parts, part] : parts;
}
