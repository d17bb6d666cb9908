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
    dialog.querySelector("[autofocus], .dialog-body :is(input:not([type='hidden']), select, textarea)")?.focus();
    return;
  }
  const closer = event.target.closest("dialog[open] [data-close]"); // one shown by the address goes with it
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
