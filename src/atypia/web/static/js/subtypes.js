// The eight subtypes: names and colours, in the order of every table.

export const NAMES = ["Bipolar asymmetric", "Multipolar", "Segregation abnormality", "Other atypical",
  "Ana-/telophase", "Metaphase", "Prometaphase", "Ring shape"];
export const SHORT = ["Bipolar", "Multipolar", "Segregation", "Other", "Ana-/telo.", "Metaphase", "Prometa.", "Ring"];
export const INITIALS = ["B", "Mu", "S", "O", "A", "Me", "P", "R"];
export const COLOURS = ["#d55e00", "#cc0028", "#cc79a7", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#785ebe"];
export const KEYS = ["amf_bipolar", "amf_multipolar", "amf_segregation", "amf_other",
  "nmf_anaphase_telophase", "nmf_metaphase", "nmf_prometaphase", "nmf_ring"];
export const N = 8;
export const ANSWERED = "answered";
// Why there is no call, in words; empty where there is one, or where the model was not asked.
export const why = (status) => status && status !== ANSWERED ? status.replaceAll("_", " ") : "";
export const atypical = (subtype) => subtype >= 0 && subtype < 4;
