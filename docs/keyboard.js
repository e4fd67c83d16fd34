// Who has no mouse can scroll what is wider than the page: code, outputs and tables get the focus, if they scroll.
const mark = () => {
  for (const box of document.querySelectorAll("pre, .table-wrapper, .output")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
mark();
addEventListener("load", mark);
addEventListener("resize", mark);
addEventListener("toggle", mark, true); // a solution is unfolded
