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

// Requests of a size that the server takes.
export function portions(files, most = 64, bytes = 16 * 2 ** 20) {
  const parts = [];
  let part = [], size = 0;
  for (const one of files) {
    if (part.length && (part.length >= most || size + one.file.size > bytes)) {
      parts.push(part);
      part = [];
      size = 0;
    }
    part.push(one);
    size += one.file.size;
  }
  return part.length ? [...parts, part] : parts;
}
