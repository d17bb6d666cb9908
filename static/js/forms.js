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
// A dialog's form that stands beside another takes what was typed there along: it may not be kept yet.
document.addEventListener("formdata", ({ target, formData }) => {
  const other = document.getElementById(target.querySelector("[data-beside]")?.dataset.beside);
  if (!other) return;
  const own = new Set(formData.keys());
  for (const [name, value] of new FormData(other)) if (!own.has(name)) formData.append(name, value);
  formData.set("beside", "1");
});
