// Forms: the first field that needs a change gets the focus, and one press makes one request.
export function focusFirstError(root) {
  const banner = root.matches?.("[data-focus-first]") ? root : root.querySelector("[data-focus-first]");
  if (!banner) return;
  const wrong = document.querySelector("main [aria-invalid='true']:not([type='hidden'])");
  const control = wrong?.matches("fieldset, ul, div") ? wrong.querySelector("input") : wrong;
  (control ?? banner).focus({ preventScroll: true });
  banner.scrollIntoView({ block: "nearest" });
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post" || form.matches("[hx-post]")) return;
  if (form.dataset.sent) event.preventDefault();
  else form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
