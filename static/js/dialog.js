// Confirmations open as real dialogs; a typed name opens the button.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.dialog);
    if (!dialog) return;
    event.preventDefault();
    dialog.querySelector("form")?.reset();
    guard(dialog);
    dialog.showModal();
    dialog.querySelector("[autofocus], .dialog-body :is(input, select, textarea)")?.focus();
    return;
  }
  const closer = event.target.closest("dialog [data-close]");
  if (closer) {
    event.preventDefault();
    closer.closest("dialog").close();
    if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  } else if (event.target.matches("dialog[open]")) {
    event.target.close(); // the backdrop
  }
});

function guard(dialog) {
  const typed = dialog.querySelector("[data-typed]");
  const button = dialog.querySelector(".dialog-foot button");
  if (!typed || !button) return;
  button.setAttribute("aria-disabled", String(!typed.validity.valid));
}

document.addEventListener("input", (event) => {
  if (event.target.matches("[data-typed]")) guard(event.target.closest("dialog"));
});
// One press, one request.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.dataset.sent || form.method !== "post") return;
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 3000);
});
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent === "yes" && event.target.dataset.again) event.preventDefault();
  event.target.dataset.again = event.target.dataset.sent ?? "";
}, true);
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
