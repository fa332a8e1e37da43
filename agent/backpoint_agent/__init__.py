"""The agent: fills a repository from VMware through VADP. Not written yet."""
