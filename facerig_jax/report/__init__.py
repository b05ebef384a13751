"""What a person looks at after a fit: pictures, the report page, the folder of files."""
