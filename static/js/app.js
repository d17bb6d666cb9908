// The one module every page loads. What a page doesn't hold is never fetched.
import "./theme.js";
