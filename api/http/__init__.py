"""What every route shares: context, authentication, problems, schemas, paging, JSON, OpenAPI, files."""
