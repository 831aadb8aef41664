// Light or dark: as the system says, until somebody chooses.

const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SIGN = { auto: "◐", light: "☀", dark: "☾" };

export function themeButton(button) {
  let theme = "auto";
  try {
    theme = localStorage.getItem("theme") ?? "auto";
  } catch { /* storage may be forbidden: then it is chosen anew each time */ }
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = SIGN[theme] ?? SIGN.auto;
    button.setAttribute("aria-label", `Theme: ${theme}. Change it`);
  };
  button.addEventListener("click", () => {
    theme = NEXT[theme] ?? "light";
    try {
      localStorage.setItem("theme", theme);
    } catch { /* see above */ }
    apply();
    dispatchEvent(new Event("themechange"));
  });
  apply();
}
