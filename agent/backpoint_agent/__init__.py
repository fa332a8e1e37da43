"""The agent: fills a repository from VMware through VADP."""
