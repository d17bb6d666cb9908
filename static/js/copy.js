// Copy buttons. Where the clipboard is closed (no https), the text is selected to be copied by hand.
import { toast } from "./toast.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  event.preventDefault();
  if (await copied(button.dataset.copy)) confirm(button);
  else toast("Your browser does not let this page copy. Select the text and copy it by hand.", { tone: "warn" });
});

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function confirm(button) {
  const use = button.querySelector("use");
  const href = use.getAttribute("href");
  if (button.dataset.copied) return;
  button.dataset.copied = "yes";
  use.setAttribute("href", href.replace(/#.*/, "#check"));
  const label = button.getAttribute("aria-label");
  button.setAttribute("aria-label", "Copied");
  setTimeout(() => {
    use.setAttribute("href", href);
    button.setAttribute("aria-label", label);
    delete button.dataset.copied;
  }, 1500);
}
