// zensical's theme fetches a lightbox from unpkg.com on every page unless one is there: this one does nothing.
window.GLightbox = class {
  setElements() {}
};
