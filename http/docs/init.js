// Kept out of index.html because the page's Content-Security-Policy forbids inline scripts.
// validatorUrl: null, because the page must not send the document to another host.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
