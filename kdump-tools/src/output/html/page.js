"use strict";
(function () {
  var form = document.querySelector(".search");
  var box = document.getElementById("q");
  var hits = document.getElementById("hits");
  var rows = Array.prototype.slice.call(document.querySelectorAll("[data-f]"));
  var texts = null;
  var opened = [];
  var timer = 0;
  function filter() {
    var words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!texts) { texts = rows.map(function (row) { return row.textContent.toLowerCase(); }); }
    opened.forEach(function (d) { d.open = false; });
    opened = [];
    var found = 0;
    rows.forEach(function (row, i) {
      var fits = words.every(function (word) { return texts[i].indexOf(word) >= 0; });
      row.hidden = !fits;
      if (!fits || !words.length) { return; }
      found += 1;
      for (var up = row; up; up = up.parentElement) {
        if (up !== row && up.hidden && up.hasAttribute("data-f")) { up.hidden = false; }
        if (up.tagName === "DETAILS" && !up.open && up !== row) { up.open = true; opened.push(up); }
      }
    });
    hits.textContent = words.length ? found + (found === 1 ? " match" : " matches") : "";
    document.body.dataset.hits = words.length ? found : "";
  }
  function fromAddress() {
    var hash = location.hash;
    if (hash.indexOf("#q=") !== 0) { return; }
    try { box.value = decodeURIComponent(hash.slice(3)); } catch (e) { return; }
    filter();
  }
  form.hidden = false;
  form.addEventListener("submit", function (e) { e.preventDefault(); filter(); });
  box.addEventListener("input", function () { clearTimeout(timer); timer = setTimeout(filter, 120); });
  document.addEventListener("keydown", function (e) {
    if (e.key === "/" && document.activeElement !== box && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); box.focus(); }
    if (e.key === "Escape" && document.activeElement === box) { box.value = ""; filter(); }
  });
  window.addEventListener("hashchange", fromAddress);
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details.blocked").forEach(function (d) { d.open = true; });
  });
  fromAddress();
})();
